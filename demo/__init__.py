"""`make demo`: Headrace seen at work in under two minutes, without root and without questions."""
