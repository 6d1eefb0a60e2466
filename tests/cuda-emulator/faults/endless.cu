// Waits for a value that no other thread writes.
#include "faults.cuh"

KERNEL(endless) {
  while (((const volatile float*)g.c)[0] != 1.0f) {
  }
}
