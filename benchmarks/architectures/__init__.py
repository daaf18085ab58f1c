"""Which model architectures train here: tiny random models of each, measured one by one."""
