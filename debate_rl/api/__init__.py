"""The Python front door: play, prefer, train, rate and transfer with plain function calls."""
