"""Validation concerns: what may go wrong with a VM, judged from its inventory document."""
