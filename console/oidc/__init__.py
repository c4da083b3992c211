"""Sign-in of operators with OpenID Connect: authorization code, PKCE, state and nonce.

    sign_in     starts a sign-in, and turns the provider's answer into an actor with a role, or refuses it
    provider    requests to the identity provider: discovery document, keys, tokens

Names and e-mail addresses in an ID token are neither stored nor logged.
"""
