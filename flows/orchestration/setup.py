def setup(url, *, only_pool=False): return []
def crash_leftover_runs(url): pass
