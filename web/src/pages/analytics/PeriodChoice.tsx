import { Button, SegmentedControl } from '@mantine/core';

import { absolute, useZone } from '../../time';
import { spans, type usePeriod } from './period';

export function PeriodChoice({ of: { span, period, choose } }: { of: ReturnType<typeof usePeriod> }) {
  const zone = useZone();
  return (
    <>
      {span === 'custom' && (
        <Button variant="default" size="xs" onClick={() => choose('24h')} title="Show the last day">
          {absolute(period.from, zone)} – {absolute(period.to, zone)} ✕
        </Button>
      )}
      <SegmentedControl
        size="xs"
        aria-label="Period"
        value={span}
        onChange={choose}
        data={spans.map(({ value, label }) => ({ value, label }))}
      />
    </>
  );
}
