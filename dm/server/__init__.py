"""The ioreq server: pages, request decoding and completion, the buffered ring, the event loop."""
