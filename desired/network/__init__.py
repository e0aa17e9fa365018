"""The network model in the words of Quantum/Neutron, and the pure compiler that makes one node's resources of it.

In reading order: `model` (what may be declared), `topology` (the model with its references resolved and its implied
ports added), `check` (what is wrong with a model as a whole), `allocations` (local VLANs, which mean something on one
node only), `compiler` (the topology as one node's bridges, ports, flows, namespaces, rules, services and files).
Nothing here reads a clock, a file or a socket.
"""
