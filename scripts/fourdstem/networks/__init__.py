"""The three networks of 4D-PreNet (doi 10.1038/s41524-026-01993-3): their shape, their input and their weights."""
