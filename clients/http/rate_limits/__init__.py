"""Rate limits: the headers that tell them, the budgets and paces that follow, and the throttle that keeps them."""
