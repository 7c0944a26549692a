"""The commands about the whole project: `init`, `new`, `up`, `down`, `status`, `setup`, `db`, `locks`, `maintain`."""
