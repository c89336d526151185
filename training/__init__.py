"""What train.py is made of: how far a run has come, and what may be changed while it goes on."""
