// A command that signs a small webhook as its provider would, and sends it. It needs the signing secret.
import type { ProviderKind } from '../../ui/ProviderName';

const hmac = (format: string) => `openssl dgst -sha256 -hmac "$SECRET" ${format}`;

/** Undefined for PayPal, because only PayPal can sign its webhooks. */
export function firstCurl(kind: ProviderKind, url: string): string | null {
  const lines = (body: string, before: string[], headers: string[]) =>
    [
      `BODY='${body}'`,
      ...before,
      `curl -i '${url}' \\`,
      ...headers.map((header) => `  -H "${header}" \\`),
      '  -H "content-type: application/json" -d "$BODY"',
    ].join('\n');
  switch (kind) {
    case 'GITHUB':
      return lines(
        '{"zen":"Keep it logically awesome."}',
        [`SIGNATURE=$(printf %s "$BODY" | ${hmac('-r')} | cut -d' ' -f1)`],
        ['x-github-event: ping', 'x-github-delivery: try-$(date +%s)', 'x-hub-signature-256: sha256=$SIGNATURE'],
      );
    case 'STRIPE':
      return lines(
        `{"id":"evt_first","object":"event","type":"charge.succeeded"}`,
        ['T=$(date +%s)', `SIGNATURE=$(printf %s "$T.$BODY" | ${hmac('-r')} | cut -d' ' -f1)`],
        ['stripe-signature: t=$T,v1=$SIGNATURE'],
      );
    case 'SHOPIFY':
      return lines(
        '{"id":1,"note":"first"}',
        [`SIGNATURE=$(printf %s "$BODY" | ${hmac('-binary')} | base64)`],
        [
          'x-shopify-topic: orders/create',
          'x-shopify-webhook-id: try-$(date +%s)',
          'x-shopify-hmac-sha256: $SIGNATURE',
        ],
      );
    case 'STANDARD':
      return lines(
        '{"type":"first","data":{}}',
        [
          'ID=msg_$(date +%s); T=$(date +%s)',
          // biome-ignore lint/suspicious/noTemplateCurlyInString: the shell replaces it
          'KEY=$(printf %s "${SECRET#whsec_}" | base64 -d | od -An -tx1 | tr -d " \\n")',
          'SIGNATURE=$(printf %s "$ID.$T.$BODY" | openssl dgst -sha256 -mac HMAC -macopt "hexkey:$KEY" -binary | base64)',
        ],
        ['webhook-id: $ID', 'webhook-timestamp: $T', 'webhook-signature: v1,$SIGNATURE'],
      );
    case 'PAYPAL':
      return null;
  }
}
