"""Pictures of the operators' console: pure functions from values to SVG text, and the same data as rows of a table.

Each picture has a wide and a narrow layout (`svg.Layout`); a page contains both, and `static/pictures.css` shows one.
"""
