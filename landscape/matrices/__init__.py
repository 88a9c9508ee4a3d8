"""The matrices of a mean loss, such as its Hessian, as products with blocks of vectors."""
