"""The commands: one file each, with its options. What composes several packages is composed here alone."""
