"""Measured: each path of Tidelog beside its limit, in one run on one machine."""
