"""The operators' console: pages in a browser over the state of all companies, and the acts of operators.

    app             assembles the process: middleware, routes, files
    security        headers of each response, and the requests that are refused: another host, another site
    sign_in         links of `duecall console login`, sessions, sign-out
    oidc            sign-in with the identity provider of an organisation
    operators       the operator of a request, and the role that a route needs
    pages           one module a page, each with a template
    acts            everything that an operator changes: form with preview, act, redirect
    live            changed fragments of open pages, as server-sent events
    rendering       templates
    navigation      the pages by name, and their addresses

Its connections run as the role `duecall_operator`, which cannot read personal data. No page needs JavaScript.
"""
