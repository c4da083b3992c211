// A file of its own: the page's Content-Security-Policy forbids scripts inside it.
SwaggerUIBundle({
  url: "openapi.json", // next to /docs, so that it also works under /v1 and behind a proxy's prefix
  dom_id: "#swagger-ui",
  deepLinking: true,
  presets: [SwaggerUIBundle.presets.apis],
  layout: "BaseLayout",
  showExtensions: true,
  showCommonExtensions: true,
  validatorUrl: null, // the default sends the document's address to another host
});
