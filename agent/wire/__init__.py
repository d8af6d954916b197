"""Documents that travel between agents, `ctl` and storage. Shapes only, no I/O."""
