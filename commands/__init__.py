"""The commands, one file each with its options. Only here may several of the other rooms be composed."""
