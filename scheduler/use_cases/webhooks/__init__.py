"""Webhooks: messages to the endpoints of partners.

deliver    claims deliveries, sends them, and records the results
deliverer  the loop of the process that does so, and its threads
"""
