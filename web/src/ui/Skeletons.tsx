import { Skeleton } from '@mantine/core';

/** Placeholders for rows that are loading. */
export function Skeletons({ rows, height }: { rows: number; height: number }) {
  const places = Array.from({ length: rows }, (_, row) => `row ${row}`);
  return places.map((place) => <Skeleton key={place} height={height} />);
}
