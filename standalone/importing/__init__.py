"""`duecall import`: a file of people becomes batches of the API.

    files      bytes -> rows (CSV or NDJSON)
    fields     names of columns -> fields of `POST /interviews`
    items      rows -> items, and items -> parts of the file, each of which becomes one batch
    sending    parts -> batches, and the outcome of each row
    runs       all parts of a file, and the sums
    pages      the result on the terminal
    rejects    rows that were refused -> the file of errors

Only `sending` uses the network.
"""
