"""The one place that picks adapters: a module for each thing that is put together of them."""
