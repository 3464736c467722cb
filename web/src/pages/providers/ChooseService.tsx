import { Badge, Group, SimpleGrid, Text } from '@mantine/core';
import { Link } from 'wouter';

import { useOrganization } from '../../session/viewer';
import { ProviderName, providerKinds, providers as services } from '../../ui/ProviderName';
import { guides } from './Guide';
import type { Provider } from './queries';
import classes from './Wizard.module.css';

/** One of each service can be connected; those that are lead to their settings. */
export function ChooseService({ known }: { known: readonly Provider[] }) {
  const { base } = useOrganization();
  return (
    <SimpleGrid cols={{ base: 1, xs: 2, md: 3 }} spacing="sm">
      {providerKinds.map((kind) => {
        const isConnected = known.some(({ providerName, deletedAt }) => providerName === kind && !deletedAt);
        const { slug } = services[kind];
        return (
          <Link
            key={kind}
            href={isConnected ? `${base}/providers/${slug}` : `${base}/providers/new?service=${slug}`}
            className={classes.service}
          >
            <Group justify="space-between" wrap="nowrap">
              <ProviderName kind={kind} size="md" />
              {isConnected && (
                <Badge miw="max-content" variant="light" tt="none" color="gray">
                  Connected
                </Badge>
              )}
            </Group>
            <Text size="sm" className="quiet" mt={6}>
              {guides[kind].about}
            </Text>
          </Link>
        );
      })}
    </SimpleGrid>
  );
}
