/* Stands before a device model: notes the time and becomes it. Linked statically, so that its own
 * start costs little; TARGET and RECORD are given by the compiler's command line.
 */
#include <fcntl.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    struct timespec now;
    char line[32];
    int length, file;
    (void)argc;
    clock_gettime(CLOCK_MONOTONIC, &now);
    length = snprintf(line, sizeof line, "%lld\n", now.tv_sec * 1000000000LL + now.tv_nsec);
    file = open(RECORD, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    if (file < 0 || write(file, line, length) != length)
        return 126;
    close(file);
    argv[0] = TARGET;
    execv(TARGET, argv);
    return 127;
}
