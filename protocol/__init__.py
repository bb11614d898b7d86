"""The binary interfaces of other programs, and ioreqd's own state container, written as data.

Each module declares one interface with construct, and its constants as enums. `protocol.layouts`
is generated from them: plain numbers and struct formats, for code that cannot afford to import
construct.
"""
