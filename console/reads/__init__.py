"""Reads of the console. Each has a constant number of statements and reads no personal data.

operator_pages       the counts of all companies, for the page Now
company_pages        the companies with their counts, and one company
batch_pages          the batches of all companies
key_pages            the API keys, and one key
attempt_lists        lists of attempts by state, rule, company, zone and due time
attempt_pages        one attempt: its explanation, hours and neighbours
find                 rows by an id, by a call's sid or by a phone number
calendar             the calls of the next 24 hours, and the forecast of their starts
"""
