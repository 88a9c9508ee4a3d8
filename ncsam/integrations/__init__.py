"""Methods in the training loops of other libraries: `ncsam.integrations.lightning`, `ncsam.integrations.transformers`.

Each needs its library, which is imported with the module.
"""
