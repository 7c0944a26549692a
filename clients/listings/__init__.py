"""Listings: declarations, paginators, and the loop that reads pages and checks that nothing is missing."""
