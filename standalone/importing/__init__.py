"""`duecall import`: a file of people becomes batches of the API.

    rows    bytes -> rows (CSV or NDJSON), rows -> items of `POST /batches`, and refused rows -> the file of errors
    runs    sends the parts of a file as batches, awaits the outcome of each row, and adds them up
    pages   progress, the result of a run, and of a dry run

Only `runs` uses the network.
"""
