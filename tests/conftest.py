"""Before any test module: a tuned BLAS is only used if it is loaded before MLX is."""

import ondevice as ondevice
