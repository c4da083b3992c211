"""Reads of the console. Each has a constant number of statements and reads no personal data.

installation  the counts of all companies for the page Now, companies and API keys
attempts      lists of attempts by state, rule, company, zone and due time; one attempt with its explanation
find          rows by an id, by a call's sid or by a phone number
calendar      the calls of the next 24 hours, and the forecast of their starts
"""
