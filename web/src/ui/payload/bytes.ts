// Bytes, as text and from text.

/** `00000010  01 ff …  |..|` */
export function dumped(bytes: Uint8Array, from: number): string {
  const part = [...bytes.subarray(from, from + 16)];
  const hex = part.map((byte) => byte.toString(16).padStart(2, '0')).join(' ');
  const text = part.map((byte) => (byte >= 0x20 && byte < 0x7f ? String.fromCharCode(byte) : '.')).join('');
  return `${from.toString(16).padStart(8, '0')}  ${hex.padEnd(48)} |${text}|`;
}

export function fromBase64(text: string): Uint8Array<ArrayBuffer> {
  const binary = atob(text);
  const bytes = new Uint8Array(binary.length);
  for (let index = 0; index < binary.length; index++) bytes[index] = binary.charCodeAt(index);
  return bytes;
}
