// A command that sends the same request to another URL. It contains text from strangers, and is pasted into a shell:
// every byte is either plain text within single quotes or an octal escape that `printf` undoes.

/** Headers that a client or a proxy sets itself. */
const left = new Set([
  'host',
  'content-length',
  'connection',
  'transfer-encoding',
  'accept-encoding',
  'expect',
  'keep-alive',
  'te',
  'trailer',
  'upgrade',
]);

/** Within single quotes only a single quote means anything to a POSIX shell. */
export function quoted(text: string): string {
  return `'${text.replaceAll("'", `'\\''`)}'`;
}

/** True if the text is safe to paste into a terminal, and looks like what it is. */
const isPlain = (text: string, lines: boolean) => (lines ? /^[\n\x20-\x7e]*$/ : /^[\x20-\x7e]*$/).test(text);

/** Escapes bytes for the format of `printf`. */
function escaped(bytes: Uint8Array): string {
  let text = '';
  for (const byte of bytes) {
    const plain = byte >= 0x20 && byte < 0x7f && byte !== 0x25 && byte !== 0x27 && byte !== 0x5c;
    text += plain ? String.fromCharCode(byte) : `\\${byte.toString(8).padStart(3, '0')}`;
  }
  return text;
}

/** Quotes any text as one argument. A NUL cannot be in an argument. */
function word(text: string): string {
  return isPlain(text, false)
    ? quoted(text)
    : `"$(printf '${escaped(new TextEncoder().encode(text.replaceAll('\0', '')))}')"`;
}

/** Above this a system may not take the body as an argument; `printf` is the shell's own and takes more. */
const ARGUMENT = 100_000;

export function curl(url: string, headers: readonly { name: string; value: string }[], body: Uint8Array): string {
  const sent = headers.filter(({ name }) => !left.has(name.toLowerCase()));
  const options = [
    `-X POST ${word(url)}`,
    ...sent.map(({ name, value }) => `-H ${word(value === '' ? `${name};` : `${name}: ${value}`)}`),
  ];
  const text = utf8(body);
  if (text !== undefined && isPlain(text, true) && body.length <= ARGUMENT) {
    return command('curl', [...options, `--data-raw ${quoted(text)}`]);
  }
  const source = text !== undefined && isPlain(text, true) ? `printf %s ${quoted(text)}` : `printf '${escaped(body)}'`;
  return `${source} | ${command('curl', [...options, '--data-binary @-'])}`;
}

function command(name: string, options: readonly string[]): string {
  return [name, ...options.map((option) => `  ${option}`)].join(' \\\n').replace(' \\\n  -X', ' -X');
}

function utf8(bytes: Uint8Array): string | undefined {
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    return undefined;
  }
}
