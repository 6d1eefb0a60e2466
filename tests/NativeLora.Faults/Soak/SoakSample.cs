using System.Globalization;

namespace NativeLora.Faults.Soak;

/// <summary>What a process holds at a moment.</summary>
/// <param name="Seconds">Since the soak began.</param>
/// <param name="ResidentKiB">Resident memory.</param>
/// <param name="AnonymousKiB">The part of it that is no file's: a mapped model comes and goes as the system likes.</param>
/// <param name="LiveBytes">Managed bytes that are alive, after a collection.</param>
/// <param name="NativeBytes">Bytes that the device counts as allocated.</param>
/// <param name="CommittedKiB">What the collector holds, alive or not.</param>
/// <param name="Handles">Open files and sockets.</param>
/// <param name="Threads">Threads.</param>
/// <param name="Work">Steps or requests so far.</param>
public readonly record struct SoakSample(double Seconds, long ResidentKiB, long AnonymousKiB, long LiveBytes, long NativeBytes, long CommittedKiB, int Handles, int Threads, long Work)
{
    public const string Header = "seconds,resident_kib,anonymous_kib,managed_live_bytes,native_bytes,collector_kib,handles,threads,work";

    public static SoakSample Take(double seconds, long nativeBytes, long work)
    {
        // What is alive is asked for, not what has not been collected yet.
        var live = GC.GetTotalMemory(forceFullCollection: true);
        long resident = 0, anonymous = 0;
        var threads = 0;
        foreach (var line in File.ReadLines("/proc/self/status"))
        {
            var value = line.Split((char[])[':', ' ', '\t'], StringSplitOptions.RemoveEmptyEntries);
            switch (value[0])
            {
                case "VmRSS":
                    resident = long.Parse(value[1], CultureInfo.InvariantCulture);
                    break;
                case "RssAnon":
                    anonymous = long.Parse(value[1], CultureInfo.InvariantCulture);
                    break;
                case "Threads":
                    threads = int.Parse(value[1], CultureInfo.InvariantCulture);
                    break;
            }
        }
        return new SoakSample(seconds, resident, anonymous, live, nativeBytes, GC.GetGCMemoryInfo().TotalCommittedBytes >> 10, Directory.EnumerateFileSystemEntries("/proc/self/fd").Count(), threads, work);
    }

    public string ToCsv() => string.Create(CultureInfo.InvariantCulture,
        $"{Seconds:0.0},{ResidentKiB},{AnonymousKiB},{LiveBytes},{NativeBytes},{CommittedKiB},{Handles},{Threads},{Work}");
}
