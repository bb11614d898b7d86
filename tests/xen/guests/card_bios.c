/* card.c behind the real hvmloader: it finds BARs and interrupt routes as firmware sets them. */
#include "bios.h"
#include "card.c"
