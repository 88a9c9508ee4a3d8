"""The measured copy of a model, its weights as one vector, and derivatives by them."""
