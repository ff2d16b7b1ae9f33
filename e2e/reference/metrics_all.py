# SPDX-License-Identifier: Apache-2.0
# All metrics at once
metrics = await sb.metrics.all()
print(f"All metrics: {metrics}")
