"""Measurements that are run by hand."""

import ondevice as ondevice  # before mlx.core, so that the tuned BLAS serves it
