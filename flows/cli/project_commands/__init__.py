"""The commands about the whole project: `up`, `down`, `status`, `setup`, `db`, `locks`, `maintain`."""
