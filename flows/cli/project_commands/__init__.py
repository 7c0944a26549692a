"""The commands about the whole project: `init`, `up`, `down`, `status`, `setup`, `db`, `locks`, `maintain`."""
