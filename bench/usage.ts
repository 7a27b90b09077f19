// Loaded before a program with --import: writes what the process took, when it ends, to the file in HKGAI_USAGE.
import { readFileSync, writeFileSync } from 'node:fs';
import { isMainThread } from 'node:worker_threads';

process.on('exit', () => {
  if (!isMainThread) return;
  const { userCPUTime, systemCPUTime } = process.resourceUsage();
  // not maxRSS of getrusage: that counts what the process was forked from too
  const peak = Number(/VmHWM:\s+(\d+)/.exec(readFileSync('/proc/self/status', 'utf8'))?.[1]);
  writeFileSync(process.env.HKGAI_USAGE as string, JSON.stringify({ rss: peak * 1024, cpu: (userCPUTime + systemCPUTime) / 1e6 }));
});
