"""The operators' console: pages in a browser over the state of all companies, and the acts of operators.

    app                assembles the process: middleware, routes, files
    security           headers of each response, the requests that are refused, forms and ids from pages
    sign_in            links of `duecall console login`, the identity provider, the page to return to, sign-out
    sessions           sign-in links and sessions
    oidc               sign-in with the identity provider of an organisation
    identity_provider  requests to it: discovery document, keys, tokens
    operators          the operator of a request, and the role that a route needs
    assembly           settings -> use cases, once per process, and the other resources of the process
    pages              one module a page, each with a template
    acts               everything that an operator changes: form with preview and reason, act, redirect
    lists              filters of an address, and the parts of a list
    reads              the rows of pages
    stores             their statements, sessions and sign-in links
    attempt_list       filters and rows of lists of attempts
    attempt_words      words for attempts, and for the rules that hold them
    timeline           rows with bars: the calling hours and the events of one attempt
    calendar_rows      rows with bars: calls by quarter hour, and the open hours of each clock
    live               changed fragments of open pages, as server-sent events
    rendering          templates, addresses of pages, and the forms of times, numbers and names

Its connections run as the role `duecall_operator`, which cannot read personal data. No page needs JavaScript.
The core never imports this package. `command_line` does, for sign-in links and sessions.
"""
