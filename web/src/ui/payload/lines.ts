/** The offsets at which lines begin. No line is longer than `columns`, and none begins within a character. */
export function broken(text: string, columns: number): number[] {
  const starts: number[] = [];
  for (let start = 0; start < text.length; ) {
    starts.push(start);
    const newline = text.indexOf('\n', start);
    const end = newline < 0 ? text.length : newline + 1;
    let next = Math.min(end, start + columns);
    // A newline that would stand alone on the next line belongs to this one.
    if (next === newline) next = end;
    const code = text.charCodeAt(next - 1);
    if (next < end && code >= 0xd800 && code < 0xdc00) next -= 1;
    start = next;
  }
  return starts.length > 0 ? starts : [0];
}
