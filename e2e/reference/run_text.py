# SPDX-License-Identifier: Apache-2.0
code = """
import math
result = math.sqrt(16)
print(f"Square root of 16 is: {result}")
"""
exec = await sb.run(code)
