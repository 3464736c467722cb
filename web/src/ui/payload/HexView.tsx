// Binary data, 16 bytes per line.
import { VirtualLines } from '../VirtualLines';
import { dumped } from './bytes';

export function HexView({ bytes, label, most }: { bytes: Uint8Array; label: string; most?: number }) {
  return (
    <VirtualLines
      count={Math.ceil(bytes.length / 16)}
      label={label}
      most={most}
      line={(index) => dumped(bytes, index * 16)}
    />
  );
}
