"""What should be: resources, their specs, the YAML that declares them, the store that remembers them."""
