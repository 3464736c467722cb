import { Button, Group } from '@mantine/core';
import type { ReactNode } from 'react';

/** The buttons of each step: back on the left, forward on the right. */
export function WizardButtons({ back, children }: { back: () => void; children?: ReactNode }) {
  return (
    <Group justify="space-between" mt="lg">
      <Button variant="default" onClick={back}>
        Back
      </Button>
      <Group gap="xs">{children}</Group>
    </Group>
  );
}
