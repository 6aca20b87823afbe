/* libfaketime translates the moment until which pthread_cond_timedwait waits from the time that it shows to the one of the kernel, and
   knows nothing of C11's cnd_timedwait, by which librdkafka waits where the C library has it (docs/upstream.md): that waits for days, or not
   at all. In glibc the two have the same condition and mutex, so this one, preloaded beside libfaketime, calls the other.

   cc -shared -fPIC -o cnd_timedwait.so cnd_timedwait.c */
#include <errno.h>
#include <pthread.h>
#include <threads.h>

int cnd_timedwait(cnd_t *restrict condition, mtx_t *restrict mutex, const struct timespec *restrict until)
{
    switch (pthread_cond_timedwait((pthread_cond_t *)condition, (pthread_mutex_t *)mutex, until)) {
    case 0:
        return thrd_success;
    case ETIMEDOUT:
        return thrd_timedout;
    default:
        return thrd_error;
    }
}
