// SpineScore.cs: the C library for C#, by P/Invoke. The CMake file beside this one builds spinescore.c as the library
// `spinescore` (spinescore.dll, libspinescore.so). Rules, units and fields are those of spinescore.h.
using System;
using System.Collections.Generic;
using System.Runtime.InteropServices;
using System.Text;

namespace SpineScore
{
    public enum Status
    {
        Ok, Rejected, Busy, Refused, Timeout, Cancelled, Unreachable, Closed, BadAnswer, TooLarge, Usage, InUse,
        NoMemory, File
    }

    /// <summary>A call that did not end well: its status, code, message and next step.</summary>
    public sealed class SpineScoreException : Exception
    {
        public readonly Status Status;
        public readonly int HttpStatus;
        public readonly int RetryAfterS;  // -1 if the service did not say
        public readonly string Code;
        public readonly string NextStep;

        internal SpineScoreException(Native.Problem problem) : base(Native.Text(problem.Message))
        {
            Status = (Status)problem.Status;
            HttpStatus = problem.HttpStatus;
            RetryAfterS = problem.RetryAfterS;
            Code = problem.Code;
            NextStep = Native.Text(problem.NextStep);
        }
    }

    public enum CornerStatus { Scored, Abstained, Unreadable, Imputed }
    public enum RegionStatus { Scored, Rejected, Missing }
    public enum TotalStatus { Complete, Imputed, Incomplete }

    [StructLayout(LayoutKind.Sequential, CharSet = CharSet.Ansi)]
    public struct Corner
    {
        [MarshalAs(UnmanagedType.ByValTStr, SizeConst = 16)] public string Site;
        public CornerStatus Status;
        public int Grade;  // -1: none
        public double Imputed;
        [MarshalAs(UnmanagedType.ByValArray, SizeConst = 4)] public double[] Probabilities;
    }

    [StructLayout(LayoutKind.Sequential, CharSet = CharSet.Ansi)]
    public struct Disc
    {
        [MarshalAs(UnmanagedType.ByValTStr, SizeConst = 8)] public string Level;
        [MarshalAs(UnmanagedType.ByValArray, SizeConst = 2)] public double[] CentrePx;
        [MarshalAs(UnmanagedType.ByValArray, SizeConst = 2)] public double[] AnteriorPx;
        public double Confidence;
        public double RotationDeg;
        public double Total;
        [MarshalAs(UnmanagedType.ByValArray, SizeConst = 2)] public Corner[] Corners;
    }

    [StructLayout(LayoutKind.Sequential, CharSet = CharSet.Ansi)]
    public struct Region
    {
        public RegionStatus Status;
        public int Missing;
        public double Total;
        [MarshalAs(UnmanagedType.ByValArray, SizeConst = 2)] public int[] Range;
        [MarshalAs(UnmanagedType.ByValTStr, SizeConst = 48)] public string RejectCode;
        public uint DiscCount;
        internal uint Reserved;
        [MarshalAs(UnmanagedType.ByValArray, SizeConst = 6)] public Disc[] Discs;
    }

    [StructLayout(LayoutKind.Sequential, CharSet = CharSet.Ansi)]
    public struct Finding
    {
        [MarshalAs(UnmanagedType.ByValTStr, SizeConst = 48)] public string Code;
        public int Region;  // 0 cervical, 1 lumbar, -1 the whole study
        internal uint Reserved;
    }

    [StructLayout(LayoutKind.Sequential, CharSet = CharSet.Ansi)]
    public struct Result
    {
        [MarshalAs(UnmanagedType.ByValTStr, SizeConst = 48)] public string Format;
        [MarshalAs(UnmanagedType.ByValTStr, SizeConst = 208)] public string Path;
    }

    [StructLayout(LayoutKind.Sequential, CharSet = CharSet.Ansi)]
    public struct Report
    {
        internal uint StructSize;
        public TotalStatus TotalStatus;
        public double Total;
        [MarshalAs(UnmanagedType.ByValArray, SizeConst = 2)] public int[] Range;
        public int WithinBudget;  // 1, 0, or -1 without a budget
        internal uint Reserved;
        public double ElapsedMs;
        public ulong AnswerBytes;
        [MarshalAs(UnmanagedType.ByValTStr, SizeConst = 72)] public string StudyInstanceUid;
        [MarshalAs(UnmanagedType.ByValArray, SizeConst = 2)] public Region[] Regions;
        public uint WarningCount;
        public uint RejectCount;
        [MarshalAs(UnmanagedType.ByValArray, SizeConst = 32)] public Finding[] Warnings;
        [MarshalAs(UnmanagedType.ByValArray, SizeConst = 16)] public Finding[] Rejects;
        public uint ResultCount;
        internal uint Reserved2;
        [MarshalAs(UnmanagedType.ByValArray, SizeConst = 16)] public Result[] Results;
    }

    /// <summary>One radiograph: pixels (ushort[] or byte[]), or a DICOM file (byte[], and Rows is 0).</summary>
    public sealed class View
    {
        public Array Data;
        public int Rows, Columns, BitsStored;
        public int BitsAllocated;  // 8 or 16; 0: 16 for ushort[], 8 for byte[]
        public int RowStrideBytes;  // 0: rows follow each other without padding
        public double RowSpacingMm, ColumnSpacingMm;  // 0: not known
        public string PhotometricInterpretation, Region, Facing, StudyInstanceUid, SopInstanceUid;
        public byte[] Header;  // of raw pixels: a DICOM file without pixels, to which DICOM results refer; null: none
    }

    /// <summary>The service. One thread at a time makes calls; Cancel may come from any thread.</summary>
    public sealed class Client : IDisposable
    {
        private IntPtr handle;

        public Client(string address, string token = null, int timeoutMs = 0)
        {
            using (var memory = new Memory())
            {
                var problem = Native.Problem.Make();
                var options = new Native.Options
                {
                    StructSize = (uint)Marshal.SizeOf(typeof(Native.Options)),
                    TimeoutMs = (uint)timeoutMs,
                    Address = memory.Text(address),
                    Token = memory.Text(token)
                };
                Check(Native.spinescore_open(ref options, out handle, ref problem), problem);
            }
        }

        public void Dispose()
        {
            Native.spinescore_close(handle);
            handle = IntPtr.Zero;
        }

        /// <summary>Whether the service is ready to score.</summary>
        public bool Ready()
        {
            var problem = Native.Problem.Make();
            int status = Native.spinescore_ready(handle, ref problem);
            if (status != (int)Status.Busy) Check(status, problem);
            return status == 0;
        }

        /// <summary>Scores one study of 1 to 4 views. `json` gets the whole answer of the service.</summary>
        public Report Score(IList<View> views, out string json, int budgetMs = 0, bool strict = false,
                            string formats = null, int answerCapacity = 1 << 20)
        {
            using (var memory = new Memory())
            {
                int size = Marshal.SizeOf(typeof(Native.View));
                IntPtr array = memory.Allocate(Math.Max(1, views.Count) * size);
                IntPtr answer = memory.Allocate(answerCapacity);
                for (int i = 0; i < views.Count; i++)
                {
                    var place = new IntPtr(array.ToInt64() + i * size);
                    Marshal.StructureToPtr(Native.View.Of(views[i], memory), place, false);
                }
                var problem = Native.Problem.Make();
                var report = new Report { StructSize = (uint)Marshal.SizeOf(typeof(Report)) };
                var request = new Native.Request
                {
                    StructSize = (uint)Marshal.SizeOf(typeof(Native.Request)),
                    ViewCount = (uint)views.Count,
                    Views = array,
                    BudgetMs = (uint)budgetMs,
                    Strict = strict ? 1 : 0,
                    Formats = memory.Text(formats),
                    Answer = answer,
                    AnswerCapacity = new UIntPtr((uint)answerCapacity)
                };
                Check(Native.spinescore_score(handle, ref request, ref report, ref problem), problem);
                var bytes = new byte[(int)report.AnswerBytes];
                Marshal.Copy(answer, bytes, 0, bytes.Length);
                json = Encoding.UTF8.GetString(bytes);
                return report;
            }
        }

        /// <summary>Writes a result, whose path is in the report, to a file: whole or not at all.</summary>
        public void FetchToFile(string path, string file)
        {
            using (var memory = new Memory())
            {
                var problem = Native.Problem.Make();
                IntPtr from = memory.Text(path), to = memory.Text(file);
                Check(Native.spinescore_fetch_to_file(handle, from, to, ref problem), problem);
            }
        }

        /// <summary>Ends the call that another thread is making. Returns false if there is none.</summary>
        public bool Cancel()
        {
            return Native.spinescore_cancel(handle) != 0;
        }

        private static void Check(int status, Native.Problem problem)
        {
            problem.Status = status;
            if (status != 0) throw new SpineScoreException(problem);
        }
    }

    /// <summary>Memory and pinned arrays of one call, freed at its end.</summary>
    internal sealed class Memory : IDisposable
    {
        private readonly List<IntPtr> blocks = new List<IntPtr>();
        private readonly List<GCHandle> pins = new List<GCHandle>();

        internal IntPtr Allocate(int bytes)
        {
            IntPtr block = Marshal.AllocHGlobal(bytes);
            blocks.Add(block);
            return block;
        }

        /// <summary>A text as UTF-8 that ends with a NUL; IntPtr.Zero for null.</summary>
        internal IntPtr Text(string text)
        {
            if (text == null) return IntPtr.Zero;
            byte[] bytes = Encoding.UTF8.GetBytes(text + "\0");
            IntPtr block = Allocate(bytes.Length);
            Marshal.Copy(bytes, 0, block, bytes.Length);
            return block;
        }

        internal IntPtr Pin(Array array)
        {
            GCHandle pin = GCHandle.Alloc(array, GCHandleType.Pinned);
            pins.Add(pin);
            return pin.AddrOfPinnedObject();
        }

        public void Dispose()
        {
            foreach (IntPtr block in blocks) Marshal.FreeHGlobal(block);
            foreach (GCHandle pin in pins) pin.Free();
        }
    }

    internal static class Native
    {
        private const string Library = "spinescore";

        [StructLayout(LayoutKind.Sequential)]
        internal struct Options
        {
            internal uint StructSize, ConnectTimeoutMs, SendTimeoutMs, TimeoutMs;
            internal IntPtr Address, Token;
        }

        [StructLayout(LayoutKind.Sequential, CharSet = CharSet.Ansi)]
        internal struct Problem
        {
            internal uint StructSize;
            internal int Status, HttpStatus, RetryAfterS;
            [MarshalAs(UnmanagedType.ByValTStr, SizeConst = 48)] internal string Code;
            [MarshalAs(UnmanagedType.ByValArray, SizeConst = 512)] internal byte[] Message;
            [MarshalAs(UnmanagedType.ByValArray, SizeConst = 256)] internal byte[] NextStep;

            internal static Problem Make()
            {
                return new Problem { StructSize = (uint)Marshal.SizeOf(typeof(Problem)) };
            }
        }

        [StructLayout(LayoutKind.Sequential)]
        internal struct View
        {
            internal uint StructSize, Rows;
            internal IntPtr Data;
            internal UIntPtr DataBytes, RowStrideBytes;
            internal uint Columns, BitsAllocated, BitsStored, Reserved;
            internal double RowSpacingMm, ColumnSpacingMm;
            internal IntPtr PhotometricInterpretation, Region, Facing, StudyInstanceUid, SopInstanceUid, Header;
            internal UIntPtr HeaderBytes;

            internal static View Of(SpineScore.View view, Memory memory)
            {
                if (!(view.Data is ushort[]) && !(view.Data is byte[]))
                    throw new ArgumentException("View.Data is neither ushort[] nor byte[].");
                int bits = view.BitsAllocated != 0 ? view.BitsAllocated : view.Data is ushort[] ? 16 : 8;
                return new View
                {
                    StructSize = (uint)Marshal.SizeOf(typeof(View)),
                    Rows = (uint)view.Rows,
                    Data = memory.Pin(view.Data),
                    DataBytes = new UIntPtr((ulong)Buffer.ByteLength(view.Data)),
                    RowStrideBytes = new UIntPtr((uint)view.RowStrideBytes),
                    Columns = (uint)view.Columns,
                    BitsAllocated = (uint)bits,
                    BitsStored = (uint)view.BitsStored,
                    RowSpacingMm = view.RowSpacingMm,
                    ColumnSpacingMm = view.ColumnSpacingMm,
                    PhotometricInterpretation = memory.Text(view.PhotometricInterpretation),
                    Region = memory.Text(view.Region),
                    Facing = memory.Text(view.Facing),
                    StudyInstanceUid = memory.Text(view.StudyInstanceUid),
                    SopInstanceUid = memory.Text(view.SopInstanceUid),
                    Header = view.Header == null ? IntPtr.Zero : memory.Pin(view.Header),
                    HeaderBytes = new UIntPtr(view.Header == null ? 0u : (uint)view.Header.Length)
                };
            }
        }

        [StructLayout(LayoutKind.Sequential)]
        internal struct Request
        {
            internal uint StructSize, ViewCount;
            internal IntPtr Views;
            internal uint BudgetMs;
            internal int Strict;
            internal IntPtr Formats, Answer;
            internal UIntPtr AnswerCapacity;
        }

        [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
        internal static extern int spinescore_open(ref Options options, out IntPtr handle, ref Problem problem);

        [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
        internal static extern void spinescore_close(IntPtr handle);

        [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
        internal static extern int spinescore_ready(IntPtr handle, ref Problem problem);

        [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
        internal static extern int spinescore_score(IntPtr handle, ref Request request, ref Report report,
                                                    ref Problem problem);

        [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
        internal static extern int spinescore_fetch_to_file(IntPtr handle, IntPtr path, IntPtr file,
                                                            ref Problem problem);

        [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
        internal static extern int spinescore_cancel(IntPtr handle);

        /// <summary>The text of UTF-8 bytes up to their NUL.</summary>
        internal static string Text(byte[] bytes)
        {
            int end = bytes == null ? 0 : Array.IndexOf(bytes, (byte)0);
            return bytes == null ? "" : Encoding.UTF8.GetString(bytes, 0, end < 0 ? bytes.Length : end);
        }
    }
}
